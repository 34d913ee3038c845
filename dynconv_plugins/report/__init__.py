"""``dynconv report``: one page, Markdown and CSV from the folders that ``dynconv study`` wrote.

Nothing is trained or scored here. `collect` reads cells into `records`, `statistics` and `compare` say what may be said
about them, `tables`, `figures` and `pictures` show them, `page` and `markdown` put them together.
"""
