"""Walk the state graph with the interpreter; show it in a terminal, on a served page, or in a file."""
