"""The preset dictionary with which model descriptions are compressed (part of the format).

Descriptions share almost all their text: COCO's class names, Ultralytics' layer names. Both
sides hold this text, so a description costs a few dozen to a few hundred bytes instead of a
thousand. Never change it: packages already sent could not be read any more.
"""

from __future__ import annotations

__all__ = ["SPEC_DICTIONARY"]

SPEC_DICTIONARY = (
    b'{"names":{},"widths":[],"yaml":{"backbone":[[-1,1,"Conv",[64,3,2]],[-1,1,"Conv",[128,3,2]]'
    b',[-1,2,"C3k2",[256,false,0.25]],[-1,1,"Conv",[256,3,2]],[-1,2,"C3k2",[512,false,0.25]],[-1'
    b',1,"Conv",[512,3,2]],[-1,2,"C3k2",[512,true]],[-1,1,"Conv",[1024,3,2]],[-1,2,"C3k2",[1024,'
    b'true]],[-1,1,"SPPF",[1024,5,3,true]],[-1,2,"C2PSA",[1024]]],"channels":3,"end2end":true,"h'
    b'ead":[[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,6],1,"Concat",[1]],[-1,2,"C3k2",[512,'
    b'true]],[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,4],1,"Concat",[1]],[-1,2,"C3k2",[256'
    b',true]],[-1,1,"Conv",[256,3,2]],[[-1,13],1,"Concat",[1]],[-1,2,"C3k2",[512,true]],[-1,1,"C'
    b'onv",[512,3,2]],[[-1,10],1,"Concat",[1]],[-1,1,"C3k2",[1024,true,0.5,true]],[[16,19,22],1,'
    b'"Detect",["nc"]]],"nc":80,"reg_max":1,"scale":"n","scales":{"l":[1.0,1.0,512],"m":[0.5,1.0'
    b',512],"n":[0.5,0.25,1024],"s":[0.5,0.5,1024],"x":[1.0,1.5,512]}}}{"names":{},"widths":[],"'
    b'yaml":{"backbone":[[-1,1,"Conv",[64,3,2]],[-1,1,"Conv",[128,3,2]],[-1,2,"C3k2",[256,false,'
    b'0.25]],[-1,1,"Conv",[256,3,2]],[-1,2,"C3k2",[512,false,0.25]],[-1,1,"Conv",[512,3,2]],[-1,'
    b'2,"C3k2",[512,true]],[-1,1,"Conv",[1024,3,2]],[-1,2,"C3k2",[1024,true]],[-1,1,"SPPF",[1024'
    b',5]],[-1,2,"C2PSA",[1024]]],"channels":3,"head":[[-1,1,"nn.Upsample",["None",2,"nearest"]]'
    b',[[-1,6],1,"Concat",[1]],[-1,2,"C3k2",[512,false]],[-1,1,"nn.Upsample",["None",2,"nearest"'
    b']],[[-1,4],1,"Concat",[1]],[-1,2,"C3k2",[256,false]],[-1,1,"Conv",[256,3,2]],[[-1,13],1,"C'
    b'oncat",[1]],[-1,2,"C3k2",[512,false]],[-1,1,"Conv",[512,3,2]],[[-1,10],1,"Concat",[1]],[-1'
    b',2,"C3k2",[1024,true]],[[16,19,22],1,"Detect",["nc"]]],"nc":80,"scale":"n","scales":{"l":['
    b'1.0,1.0,512],"m":[0.5,1.0,512],"n":[0.5,0.25,1024],"s":[0.5,0.5,1024],"x":[1.0,1.5,512]}}}'
    b'{"names":{},"yaml":{"backbone":[[-1,1,"Conv",[64,3,2]],[-1,1,"Conv",[128,3,2]],[-1,3,"C2f"'
    b',[128,true]],[-1,1,"Conv",[256,3,2]],[-1,6,"C2f",[256,true]],[-1,1,"Conv",[512,3,2]],[-1,6'
    b',"C2f",[512,true]],[-1,1,"Conv",[1024,3,2]],[-1,3,"C2f",[1024,true]],[-1,1,"SPPF",[1024,5]'
    b']],"channels":3,"head":[[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,6],1,"Concat",[1]],'
    b'[-1,3,"C2f",[512]],[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,4],1,"Concat",[1]],[-1,3'
    b',"C2f",[256]],[-1,1,"Conv",[256,3,2]],[[-1,12],1,"Concat",[1]],[-1,3,"C2f",[512]],[-1,1,"C'
    b'onv",[512,3,2]],[[-1,9],1,"Concat",[1]],[-1,3,"C2f",[1024]],[[15,18,21],1,"Detect",["nc"]]'
    b'],"nc":80,"scale":"n","scales":{"l":[1.0,1.0,512],"m":[0.67,0.75,768],"n":[0.33,0.25,1024]'
    b',"s":[0.33,0.5,1024],"x":[1.0,1.25,512]}}}{"names":{"0":"person","1":"bicycle","2":"car","'
    b'3":"motorcycle","4":"airplane","5":"bus","6":"train","7":"truck","8":"boat","9":"traffic '
    b'light","10":"fire hydrant","11":"stop sign","12":"parking meter","13":"bench","14":"bird",'
    b'"15":"cat","16":"dog","17":"horse","18":"sheep","19":"cow","20":"elephant","21":"bear","22'
    b'":"zebra","23":"giraffe","24":"backpack","25":"umbrella","26":"handbag","27":"tie","28":"s'
    b'uitcase","29":"frisbee","30":"skis","31":"snowboard","32":"sports '
    b'ball","33":"kite","34":"baseball bat","35":"baseball '
    b'glove","36":"skateboard","37":"surfboard","38":"tennis racket","39":"bottle","40":"wine gl'
    b'ass","41":"cup","42":"fork","43":"knife","44":"spoon","45":"bowl","46":"banana","47":"appl'
    b'e","48":"sandwich","49":"orange","50":"broccoli","51":"carrot","52":"hot '
    b'dog","53":"pizza","54":"donut","55":"cake","56":"chair","57":"couch","58":"potted '
    b'plant","59":"bed","60":"dining table","61":"toilet","62":"tv","63":"laptop","64":"mouse","'
    b'65":"remote","66":"keyboard","67":"cell phone","68":"microwave","69":"oven","70":"toaster"'
    b',"71":"sink","72":"refrigerator","73":"book","74":"clock","75":"vase","76":"scissors","77"'
    b':"teddy bear","78":"hair drier","79":"toothbrush"},"widths":[],"yaml":{"backbone":[[-1,1,"'
    b'Conv",[64,3,2]],[-1,1,"Conv",[128,3,2]],[-1,3,"C2f",[128,true]],[-1,1,"Conv",[256,3,2]],[-'
    b'1,6,"C2f",[256,true]],[-1,1,"Conv",[512,3,2]],[-1,6,"C2f",[512,true]],[-1,1,"Conv",[1024,3'
    b',2]],[-1,3,"C2f",[1024,true]],[-1,1,"SPPF",[1024,5]]],"ch":3,"channels":3,"depth_multiple"'
    b':0.33,"head":[[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,6],1,"Concat",[1]],[-1,3,"C2f'
    b'",[512]],[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,4],1,"Concat",[1]],[-1,3,"C2f",[25'
    b'6]],[-1,1,"Conv",[256,3,2]],[[-1,12],1,"Concat",[1]],[-1,3,"C2f",[512]],[-1,1,"Conv",[512,'
    b'3,2]],[[-1,9],1,"Concat",[1]],[-1,3,"C2f",[1024]],[[15,18,21],1,"Detect",["nc"]]],"nc":80,'
    b'"width_multiple":0.25}}'
)
