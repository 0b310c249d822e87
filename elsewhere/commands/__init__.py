"""The commands by noun, as functions whose groups of options `elsewhere.options` spells out."""
