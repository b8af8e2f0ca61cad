"""Walking the state graph by hand: one walk by the interpreter, shown in a terminal, on a page, or in a file."""
