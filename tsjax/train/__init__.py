"""Training of any model by gradients: `train`, the batches that it sees, and the rules that end it."""

from .batches import AbstractBatches as AbstractBatches
from .batches import FullBatch as FullBatch
from .batches import MiniBatches as MiniBatches
from .batches import Online as Online
from .batches import some_rows as some_rows
from .loop import Probe as Probe
from .loop import Trained as Trained
from .loop import train as train
from .stop import NEVER as NEVER
from .stop import AbstractStop as AbstractStop
from .stop import Flat as Flat
from .stop import Never as Never
from .stop import Reached as Reached
from .stop import Validation as Validation
