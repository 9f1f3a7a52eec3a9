"""The public names of SeeWhy, for type checkers and for :func:`seewhy.__getattr__`, which imports them on first use."""

from .api import described as described
from .api import explain as explain
from .api import fit as fit
from .api import from_module as from_module
from .api import pretrained as pretrained
from .api import zero_shot as zero_shot
from .catalogue import list_methods as list_methods
from .classifiers.base import Classifier as Classifier
from .classifiers.saving import load as load
from .dense.by_words import detect as detect
from .dense.by_words import segment as segment
from .dense.detection.fit import fit_detector as fit_detector
from .dense.regions import Detections as Detections
from .dense.regions import Segmentation as Segmentation
from .dense.saving import load_detector as load_detector
from .descriptions import Descriptions as Descriptions
from .encoders import Encoder as Encoder
from .encoders.find import encoder as encoder
from .encoders.find import list_encoders as list_encoders
from .errors import SeeWhyError as SeeWhyError
from .evaluation import Report as Report
from .explanation.base import Explanation as Explanation
from .explanation.prediction import Prediction as Prediction
from .generation.generate import generate as generate
from .learning.api import adapt as adapt
from .learning.api import pretrain as pretrain
from .pictures.boxes import BoxData as BoxData
from .pictures.boxes import load_boxes as load_boxes
from .pictures.boxes import save_boxes as save_boxes
from .pictures.pairs import load_pairs as load_pairs
from .pictures.samples import Samples as Samples
from .pictures.samples import load_samples as load_samples
from .progress import Bars as Bars
from .progress import Progress as Progress
from .results import schema as schema
from .service.export import export as export
from .storage.features import FeatureStore as FeatureStore
from .studies.auditing.audit import audit as audit
from .studies.faithfulness import study as study
from .types import Failure as Failure
from .types import Transform as Transform

__version__: str
