"""What a checkpoint is, read without loading it: nothing is imported, nothing in it is run."""

from builder.checkpoint.graph import CheckpointError
from builder.checkpoint.lineage import Lineage, lineage_of
from builder.checkpoint.read import Checkpoint, read_checkpoint
from builder.checkpoint.weights import Tensor

__all__ = ["Checkpoint", "CheckpointError", "Lineage", "Tensor", "lineage_of", "read_checkpoint"]
