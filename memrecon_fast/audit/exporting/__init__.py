"""Runs for papers: tables in LaTeX, CSV and Markdown, figures in SVG and PDF; of one run or several."""
