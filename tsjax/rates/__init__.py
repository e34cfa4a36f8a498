"""Rates: the exponent of a risk curve with an interval that keeps its promise, comparisons, plans and verdicts.

The data are always a table `risks` of shape (k, seeds): row i holds the risks of all seeds at n_i. Host code in NumPy
float64; nothing here imports JAX, and SciPy loads on first use.
"""

from .compare import compare_rates as compare_rates
from .compare import crossing as crossing
from .compare import mean_ratio as mean_ratio
from .compare import share as share
from .compare import simultaneous as simultaneous
from .diagnosis import diagnose as diagnose
from .forecasts import AveragedForecast as AveragedForecast
from .forecasts import Forecast as Forecast
from .forecasts import forecast as forecast
from .forecasts import score_forecast as score_forecast
from .frontier import Frontier as Frontier
from .intervals import Estimate as Estimate
from .joint import JointRate as JointRate
from .joint import fit_joint_rate as fit_joint_rate
from .losses import Huber as Huber
from .metrics import why_no_risk as why_no_risk
from .models import MODELS as MODELS
from .models import AbstractModel as AbstractModel
from .models import Broken as Broken
from .models import BrokenScaling as BrokenScaling
from .models import Exponential as Exponential
from .models import FiniteSample as FiniteSample
from .models import Floor as Floor
from .models import LogFactor as LogFactor
from .models import Logistic as Logistic
from .models import LogPower as LogPower
from .models import MorganMercerFlodin as MorganMercerFlodin
from .models import PowerLaw as PowerLaw
from .models import ShiftedPower as ShiftedPower
from .models import Weibull as Weibull
from .models import find_model as find_model
from .planning import SeedPlan as SeedPlan
from .planning import next_seeds as next_seeds
from .planning import plan_seeds as plan_seeds
from .rate import Rate as Rate
from .rate import fit_rate as fit_rate
from .selection import CANDIDATES as CANDIDATES
from .selection import ModelChoice as ModelChoice
from .selection import choose_model as choose_model
from .shape import CurveShape as CurveShape
from .shape import shape_of as shape_of
from .surface import Surface as Surface
from .surface import fit_surface as fit_surface
from .verdict import Verdict as Verdict
from .verdict import equivalence as equivalence
from .verdict import judge as judge
from .verdict import p_value_sentence as p_value_sentence
from .verdict import superiority as superiority
from .window import WindowChoice as WindowChoice
from .window import choose_window as choose_window
from .window import windows as windows
