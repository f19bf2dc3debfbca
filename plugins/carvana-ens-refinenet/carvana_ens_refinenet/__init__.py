"""JunhongXu's RefineNets for Carvana: ``models``, their networks, and the encoders from timm that these share."""
