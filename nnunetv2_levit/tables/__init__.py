"""Every table of the package, as Markdown and CSV, made from what was measured (the content of a JSON file).

Markdown tables are for reading: values with two digits, fractions as per cent. CSV tables are for computing: raw
values. Texts from data are escaped by `plain_text`.
"""

from nnunetv2_levit.tables.attention import (
    attention_csv,
    attention_markdown,
    block_study_markdown,
    knock_out_csv,
    knock_out_markdown,
    transformer_share_markdown,
)
from nnunetv2_levit.tables.common import (
    METRICS,
    PERCENTAGES,
    interval,
    metric_heading,
    number,
    p_value,
)
from nnunetv2_levit.tables.comparison import (
    comparison_csv,
    comparison_markdown,
    comparison_table,
    papers_markdown,
)
from nnunetv2_levit.tables.data_and_cost import (
    benchmark_markdown,
    overview_markdown,
)
from nnunetv2_levit.tables.evaluation import (
    empty_table,
    evaluation_csv,
    evaluation_markdown,
    models_table,
    protocol_table,
    structures_table,
)

__all__ = [
    "METRICS",
    "PERCENTAGES",
    "attention_csv",
    "attention_markdown",
    "benchmark_markdown",
    "block_study_markdown",
    "comparison_csv",
    "comparison_markdown",
    "comparison_table",
    "empty_table",
    "evaluation_csv",
    "evaluation_markdown",
    "interval",
    "knock_out_csv",
    "knock_out_markdown",
    "metric_heading",
    "models_table",
    "number",
    "overview_markdown",
    "p_value",
    "papers_markdown",
    "protocol_table",
    "structures_table",
    "transformer_share_markdown",
]
