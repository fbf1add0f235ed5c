"""Are recent images still like those that the model was made for?"""
