"""Every interleaving: exploration, leads-to, certified stories, other formats."""
