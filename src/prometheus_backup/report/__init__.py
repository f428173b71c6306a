"""One page about a repository, for people who would rather look than read.

Start with `plan.py`: it turns the backups, their timeline and the forecast of the cost into a
`Report`, beginning with its verdict (`verdict.py`) and its nights (`nights.py`). `document.py`
writes a report as JSON, `charts.py` computes coordinates, and `page.py` renders the page from
`templates/`. All of it is pure, except that the templates are read from the package.
"""
