"""The report: one file that tells what results say, and says of each number where it is from.

Bokeh draws its explorer, and is asked for where a page is made; checking one does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elsewhere.registry import imported_later

if TYPE_CHECKING:
    from elsewhere.report.checking import Checked as Checked
    from elsewhere.report.checking import check_report as check_report
    from elsewhere.report.serving import make_server as make_server
    from elsewhere.report.serving import serve_report as serve_report
    from elsewhere.report.writing import check_folder as check_folder
    from elsewhere.report.writing import make_report as make_report
    from elsewhere.report.writing import save_report as save_report
    from elsewhere.report.writing import write_report as write_report
else:  # a checker must not take unknown names for granted
    __all__, __getattr__, __dir__ = imported_later(__name__, __file__)
