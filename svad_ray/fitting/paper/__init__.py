"""The paper's fit: SMPL-X and FLAME to the key points of a whole clip at once (SVAD section 3.3, which is ExAvatar's fitting stage).

``companions`` what belongs to the licensed bodies beside their own files; ``targets`` key points and cameras as the losses take them, and the first
place of both bodies; ``model`` states, and the bodies that they make; ``losses`` every term; ``solve`` the schedule.
"""
