"""Zero-shot image–text retrieval: COCO-5K, Flickr30k-1K or any captioned image set."""
