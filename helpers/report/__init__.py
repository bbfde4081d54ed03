"""The report of a run as HTML that needs no network.

- site: the pages and indexes of a run, written
- runs: the list of runs, and what is stale in each
- pages: one executed notebook as the parts of a page
- markup: its HTML, with numbered figures and tables
- scores: the table of models by protocol
- templates: the nbconvert template and the frames around it, with one style sheet
"""
