"""Picture files (PNG, JPEG, BMP, TIFF), read with the depth and colours that they state."""
