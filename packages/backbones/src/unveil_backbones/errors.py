"""The errors of this package: one small tree, each message saying what was given, what is allowed and what to do."""

__all__ = [
    "BackboneError",
    "CheckpointError",
    "CheckpointExistsError",
    "CheckpointNotFoundError",
    "CheckpointWriteError",
    "ConfigError",
    "ConvertError",
    "CoverageError",
    "FormatVersionError",
    "HashMismatchError",
    "ImageSizeError",
    "KeepError",
    "ManifestError",
    "NonFiniteError",
    "NotAPairError",
    "NotExpressibleError",
    "ShardedCheckpointError",
    "SlurmError",
    "TensorMismatchError",
    "TokenCountError",
    "TokenizerError",
    "TooManyPixelsError",
    "TruncatedError",
    "UnknownArchitectureError",
    "UnknownLayerError",
    "UnknownModelError",
    "UnsafeFileError",
    "UnsafePathError",
]


class BackboneError(ValueError):
    """Root of everything this package raises on purpose."""


class SlurmError(BackboneError):
    """SLURM is missing, does not answer or refuses jobs, or what it holds of them cannot be read."""


class ImageSizeError(BackboneError):
    """The image height or width does not fit the encoder's patches and stages."""


class TokenCountError(BackboneError):
    """The number of tokens handed to ``encode`` or to a text tower does not fit."""


class KeepError(BackboneError):
    """``keep`` is missing where the places of tokens have to be known, or names tokens that are no whole units."""


class UnknownModelError(BackboneError):
    """No encoder or text tower has this name."""


class UnknownLayerError(BackboneError):
    """An intermediate result was asked for by a name that no layer of the encoder has, or that did not run."""


class ConfigError(BackboneError):
    """A configuration value, or a whole configuration, is not one the model can be built from."""


class TooManyPixelsError(BackboneError):
    """An image announces more pixels than are decoded."""


class TokenizerError(BackboneError):
    """A tokenizer cannot be trained or read from what was given."""


class CheckpointError(BackboneError):
    """Root of everything that can be wrong with a checkpoint directory."""


class CheckpointNotFoundError(CheckpointError):
    """The path holds neither a checkpoint nor a run with checkpoints."""


class CheckpointExistsError(CheckpointError):
    """A checkpoint is never overwritten: the target of ``save`` exists."""


class CheckpointWriteError(CheckpointError):
    """Writing failed (disk full, read-only folder); nothing of the attempt was left behind."""


class ManifestError(CheckpointError):
    """The manifest is complete JSON but its fields are not those of the contract."""


class FormatVersionError(CheckpointError):
    """The checkpoint has a format that this version of the package does not read."""


class UnsafePathError(CheckpointError):
    """A manifest, an archive or a symbolic link names a file outside of its directory."""


class UnsafeFileError(CheckpointError):
    """A file holds code, or would expand beyond its own size when it is read; nothing of it was used."""


class NonFiniteError(CheckpointError):
    """A weight is NaN or infinite."""


class ConvertError(CheckpointError):
    """A foreign checkpoint cannot be read or written as asked: unknown format, or a detail that has to be given."""


class CoverageError(ConvertError):
    """Tensors of a foreign checkpoint are neither used nor knowingly dropped, or some that are needed are missing."""


class NotExpressibleError(ConvertError):
    """A model has a part that the other side cannot express without changing its results."""


class TruncatedError(CheckpointError):
    """A file of the checkpoint is missing or ends too early."""


class HashMismatchError(CheckpointError):
    """A file of the checkpoint is not the one the manifest describes."""


class TensorMismatchError(CheckpointError):
    """Tensors are missing, unexpected, or have another shape or type than the model's."""


class UnknownArchitectureError(CheckpointError, UnknownModelError):
    """The checkpoint holds a model that this version of the package cannot build."""


class NotAPairError(CheckpointError):
    """The checkpoint has no text tower, so that it is not an image-text pair."""


class ShardedCheckpointError(CheckpointError):
    """The checkpoint holds its weights in the parts that several processes wrote; it has to be exported first."""
