-brand = Acme
door = Die rote Tür des Hauses ist offen
