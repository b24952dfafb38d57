"""The rules of all modules here, as one table."""

from __future__ import annotations

from isomorph.dialects._forms.common import common
from isomorph.dialects._forms.loops import loops
from isomorph.dialects._forms.positions import positions
from isomorph.dialects._forms.resizing import resizing
from isomorph.dialects._forms.windows import windows
from isomorph.dialects._lower import Mapping

SHARED = Mapping().update(common).update(loops).update(positions).update(resizing).update(windows)
