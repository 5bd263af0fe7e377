"""The one list of what MedMNIST shows (Yang et al. 2023, table 1): modality and anatomy by set.

It is also what a model knows of which nobody says more (`medformer.build`). Loads no torch.
"""

from medformer.config import ModelConfig

ANATOMY = {
    "pathmnist": ("histology", "colon"),
    "chestmnist": ("chest-xray", "chest"),
    "dermamnist": ("dermatoscopy", "skin"),
    "octmnist": ("oct", "retina"),
    "pneumoniamnist": ("chest-xray", "chest"),
    "retinamnist": ("fundus", "retina"),
    "breastmnist": ("ultrasound", "breast"),
    "bloodmnist": ("microscopy", "blood"),
    "tissuemnist": ("microscopy", "kidney"),
    "organamnist": ("ct", "abdomen"),
    "organcmnist": ("ct", "abdomen"),
    "organsmnist": ("ct", "abdomen"),
    "organmnist3d": ("ct", "abdomen"),
    "nodulemnist3d": ("ct", "lung"),
    "adrenalmnist3d": ("ct", "adrenal"),
    "fracturemnist3d": ("ct", "ribs"),
    "vesselmnist3d": ("mra", "brain"),
    "synapsemnist3d": ("electron-microscopy", "brain"),
}
"""MedMNIST set -> modality and anatomy of its images."""

EVERYTHING = ModelConfig(
    stems=("2d-1", "2d-3", "3d-1"),
    modalities=tuple(sorted({modality for modality, _ in ANATOMY.values()})),
    anatomies=tuple(sorted({anatomy for _, anatomy in ANATOMY.values()})),
    domains=("any",),
)
"""A vocabulary for every MedMNIST set, 2D and 3D; `any` stands for the domains of sites to come."""
