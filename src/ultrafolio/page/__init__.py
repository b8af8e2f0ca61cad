"""The checker as one HTML file: rules and waits translated to JavaScript, a scenario read from the page's address."""
