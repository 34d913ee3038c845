"""``dynconv report``: one page, Markdown and CSV from the folders that ``dynconv study`` wrote.

Nothing is trained or scored here. `collect` reads cells into `records`, `statistics` and `compare` say what may be said
about them, `tables`, `figures` and `pictures` show them, `page` and `markdown` put them together.
A new table or figure of a task is a function that makes it, a field of `sections.Section`, and its place in
``page.html.j2`` and `markdown`.
"""
