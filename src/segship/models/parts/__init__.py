"""What several families are made of. Parameter names are detectron2's; families of other code bases rename their keys."""
