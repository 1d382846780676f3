"""What every test run starts with: values are really frozen, and a skip must have been announced.

Importing this file before any module that defines values is what makes the first one work.
"""

from __future__ import annotations

from perdure_processor.model.value import freeze_values

freeze_values()

pytest_plugins = ["support.golden", "support.skips"]
