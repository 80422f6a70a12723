"""Who looks at the images: networks as feature spaces, and features of many images."""
