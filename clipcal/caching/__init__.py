"""On-disk cache of image and text features, keyed by content."""

from clipcal.caching._cache import FeatureCache
from clipcal.caching._memory import MemoryLike, as_cache
from clipcal.caching._table import FeatureTable

__all__ = ["FeatureCache", "FeatureTable", "MemoryLike", "as_cache"]
