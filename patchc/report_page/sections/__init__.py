"""The parts of the page, each made from what was given; a part without anything to show is None."""
