from tests.small_disk import disk

__all__ = ["disk"]
