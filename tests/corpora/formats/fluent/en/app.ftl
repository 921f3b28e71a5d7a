-brand = Acme
door =
    The red door of
    the house is open
