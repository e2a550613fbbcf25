def write_report(folder, config):
    return folder / "report.html"
