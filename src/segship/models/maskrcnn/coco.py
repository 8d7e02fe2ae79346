"""COCO's 80 classes of objects and the ids that its annotation files give them (cocodataset.org, ``instances_val2017``)."""

from __future__ import annotations

CLASSES = tuple(
    (
        "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,"
        "bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,"
        "sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,"
        "bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,"
        "toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,"
        "teddy bear,hair drier,toothbrush"
    ).split(",")
)
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED)
TORCHVISION_IDS = tuple(range(1, 91))
"""torchvision's labels are the category ids themselves, the unused ones included."""

_BY_ID = dict(zip(CATEGORY_IDS, CLASSES, strict=True))
COCO_BY_LABEL = tuple(_BY_ID.get(label, f"N/A {label}") for label in TORCHVISION_IDS)
"""A name for each of them."""
