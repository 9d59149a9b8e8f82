"""Floor 5: the HTML report, its pictures, and FITS export."""
