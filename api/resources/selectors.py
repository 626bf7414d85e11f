"""placeholder until the selector language lands"""
SelectorText = str
