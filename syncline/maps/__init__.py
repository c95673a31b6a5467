"""Maps as data: the model of a map, its rules, and the document that it is written as."""
