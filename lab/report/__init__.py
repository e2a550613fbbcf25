"""The report page, figures for papers, tables."""
