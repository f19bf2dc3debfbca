"""The U-Nets that four Carvana solutions trained from scratch; one file a solution, ``network`` is what they share."""
