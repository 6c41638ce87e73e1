"""How good a model is: perplexity, multiple choice, classification (docs/evaluation.md).

`harness`, the adapter for lm-evaluation-harness, is imported by who has that installed.
"""

from bitinfer.evaluate.choice import Accuracy, Choice, Question, accuracy, choose, confusion
from bitinfer.evaluate.perplexity import Perplexity, document_perplexity, perplexity
from bitinfer.evaluate.task_files import LabelledTexts, read_labelled_texts, read_questions

__all__ = [
    "Accuracy",
    "Choice",
    "LabelledTexts",
    "Perplexity",
    "Question",
    "accuracy",
    "choose",
    "confusion",
    "document_perplexity",
    "perplexity",
    "read_labelled_texts",
    "read_questions",
]
