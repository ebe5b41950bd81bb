"""Features of images and texts, kept on disk and found again by their content."""

from clipcal.caching._cache import FeatureCache
from clipcal.caching._memory import MemoryLike, as_cache
from clipcal.caching._table import FeatureTable

__all__ = ["FeatureCache", "FeatureTable", "MemoryLike", "as_cache"]
