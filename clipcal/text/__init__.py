"""Class names, prompt templates, and a lexicon of nouns for outliers."""

from clipcal.text._class_names import check_distinct, class_texts, name_key, split_labels
from clipcal.text._lexicon import load_nouns
from clipcal.text._templates import DEFAULT_TEMPLATE, TEMPLATES, fill, find_templates

__all__ = [
    "DEFAULT_TEMPLATE",
    "TEMPLATES",
    "check_distinct",
    "class_texts",
    "fill",
    "find_templates",
    "load_nouns",
    "name_key",
    "split_labels",
]
