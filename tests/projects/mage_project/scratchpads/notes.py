raise RuntimeError("this file never runs")
