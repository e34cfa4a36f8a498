"""The experiments that ship with tsjax, one module each, by their names in sweep files."""

import lazy_loader as _lazy

SHIPPED = {
    "superiority": "tsjax.studies.superiority",
    "recovery": "tsjax.studies.recovery",
    "paper_figure": "tsjax.studies.paper_figure",
    "real_data": "tsjax.studies.real_data",
    "benign_overfitting": "tsjax.studies.benign_overfitting",
    "gaussian_mixture": "tsjax.studies.gaussian_mixture",
    "learnability": "tsjax.studies.learnability",
    "effective_dimension": "tsjax.studies.effective_dimension",
    "finite_width": "tsjax.studies.finite_width",
    "feature_purification": "tsjax.studies.feature_purification",
    "exact_representors": "tsjax.studies.exact_representors",
    "single_index": "tsjax.studies.single_index",
    "multi_grade": "tsjax.studies.multi_grade",
    "double_descent": "tsjax.studies.double_descent",
    "self_supervised": "tsjax.studies.self_supervised",
    "noisy_grades": "tsjax.studies.noisy_grades",
    "power_law": "tsjax.studies.power_law",
    "learned_subspaces": "tsjax.studies.learned_subspaces",
}

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
