"""The simulator: production core and shell of one node, seeded, in virtual time."""

from __future__ import annotations

from perdure_processor.model.value import freeze_values

# Before any module that defines values: whoever changes one is found here.
freeze_values()
