"""What the explorer's page and the lab's page share: listening, response headers, and the script of elements."""
