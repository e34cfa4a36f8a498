from .benign_overfitting import benign_overfitting as benign_overfitting
from .double_descent import double_descent as double_descent
from .effective_dimension import effective_dimension as effective_dimension
from .exact_representors import exact_representors as exact_representors
from .feature_purification import feature_purification as feature_purification
from .finite_width import finite_width as finite_width
from .gaussian_mixture import gaussian_mixture as gaussian_mixture
from .learnability import learnability as learnability
from .learned_subspaces import learned_subspaces as learned_subspaces
from .multi_grade import multi_grade as multi_grade
from .noisy_grades import noisy_grades as noisy_grades
from .paper_figure import paper_figure as paper_figure
from .power_law import power_law as power_law
from .real_data import real_data as real_data
from .recovery import recovery as recovery
from .self_supervised import self_supervised as self_supervised
from .single_index import single_index as single_index
from .superiority import superiority as superiority

SHIPPED: dict[str, str]
