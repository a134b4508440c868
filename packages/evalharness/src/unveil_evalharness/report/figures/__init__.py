"""The report's figures, one idea a module; all of them data that the page and the files draw alike."""
