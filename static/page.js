// What every page does, whatever it is about. Its own module stands beside this one.

import "./live.js";
import { toggleDrawer, wireDrawer } from "./drawer.js";
import { wireDialogs } from "./forms.js";
import { wireShortcuts } from "./shortcuts.js";
import { wireTheme } from "./theme.js";

wireDialogs();
wireTheme();
wireDrawer();
wireShortcuts(toggleDrawer);
