"""Which model this is; the training service computes the same of what it trained."""

from codealign.common.model_identity import revision

__all__ = ["revision"]
