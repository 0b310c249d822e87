"""The commands of the command line, by what they are about; `elsewhere.cli` puts them together."""
