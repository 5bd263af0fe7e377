"""The data card: what `site check` shows about a site's records. It never leaves the site."""
