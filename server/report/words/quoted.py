"""Sentences of the software inside a report, in German.

They stand in report.json in English, because the site's own code declares them. A sentence that is
not here, such as a refusal that a person typed, stays as it is and is marked as English.
"""

GERMAN = {
    "add or remove one image": "ein Bild kommt hinzu oder fällt weg",
    "add or remove one patient": "eine Person kommt hinzu oder fällt weg",
    # What left a site, and why it may.
    "name of the site": "Name des Standorts",
    "kind of image": "Art der Bilder",
    "version of the code": "Version des Programmcodes",
    "version of the messages": "Version der Nachrichten",
    "receipt: what the run may cost": "Quittung: was der Lauf kosten darf",
    "newest row of the ledger, as a hash": "jüngste Zeile des Budgetbuchs, als Hashwert",
    "signature of the guard": "Signatur des Guards",
    "public keys for masks": "öffentliche Schlüssel für Masken",
    "sealed secrets for masks": "versiegelte Geheimnisse für Masken",
    "number of the round": "Nummer der Runde",
    "number of the attempt": "Nummer des Versuchs",
    "shared weights of the model": "gemeinsame Gewichte des Modells",
    "masked weights of the model": "maskierte Gewichte des Modells",
    "names of the trained weights": "Namen der trainierten Gewichte",
    "training loss": "Verlust im Training",
    "counts of the final model's scores, or of records": "Zählungen der Punktwerte des fertigen "
    "Modells oder der Datensätze",
    "metrics of the model": "Kennzahlen des Modells",
    "kind of a refusal": "Art einer Ablehnung",
    "reason of a refusal": "Grund einer Ablehnung",
    "public: the site's name": "öffentlich: der Name des Standorts",
    "public: modality, anatomy and channels as declared": "öffentlich: Modalität, Körperregion und "
    "Kanäle laut Angabe",
    "public: hash of the installed code": "öffentlich: Hashwert des installierten Programmcodes",
    "public constant": "öffentliche Konstante",
    "function of the public schedule and of the site's declaration; reads no record": "Funktion des "
    "öffentlichen Ablaufplans und der Angaben des Standorts; liest keinen Datensatz",
    "hash of a ledger row and all earlier rows: requests, plans, the site's clock, and hashes of "
    "noisy values": "Hashwert einer Zeile des Budgetbuchs und aller früheren: Anfragen, Pläne, Uhr "
    "des Standorts und Hashwerte verrauschter Werte",
    "public key of the guard, the number of charged attempts, and a signature over receipt, ledger "
    "hash, that number and the digest of noisy counts": "öffentlicher Schlüssel des Guards, Zahl der "
    "belasteten Versuche und Signatur über Quittung, Hashwert des Budgetbuchs, diese Zahl und den "
    "Hashwert verrauschter Zählungen",
    "signature of the guard over a report": "Signatur des Guards über einen Bericht",
    "public key of the guard and its signature over the report's hash; reads no record": "öffentlicher "
    "Schlüssel des Guards und seine Signatur über den Hashwert des Berichts; liest keinen Datensatz",
    "public keys of the guard for this run, and its signature; random, reads no record": "öffentliche "
    "Schlüssel des Guards für diesen Lauf und seine Signatur; zufällig, liest keinen Datensatz",
    "secrets encapsulated for other guards, and signatures; random, reads no record": "für andere "
    "Guards gekapselte Geheimnisse und Signaturen; zufällig, liest keinen Datensatz",
    "echo of the request": "Wiederholung aus der Anfrage",
    "Poisson-subsampled Gaussian mechanism (DP-SGD), charged to the ledger; shared tensors only, "
    "including concepts": "Gauß-Mechanismus auf Poisson-Stichproben (DP-SGD), dem Budgetbuch "
    "belastet; nur gemeinsame Tensoren, Konzepte eingeschlossen",
    "in place of the tensors where answers are masked: the same update, charged to the ledger in the "
    "same way, rounded, with masks that cancel in the sum over all sites; where each site adds a "
    "share of the noise, a step's noisy sum, which the ledger's epsilon covers as long as no more "
    "sites collude with the server than the run says": "anstelle der Tensoren, wo Antworten maskiert "
    "sind: dieselbe Aktualisierung, ebenso dem Budgetbuch belastet, gerundet, mit Masken, die sich "
    "in der Summe über alle Standorte aufheben; wo jeder Standort einen Anteil des Rauschens "
    "hinzufügt, die verrauschte Summe eines Schritts, die das Epsilon des Budgetbuchs deckt, solange "
    "sich nicht mehr Standorte mit dem Server zusammentun, als der Lauf angibt",
    "function of the phase and of the site's declaration; reads no record": "Funktion der Phase und "
    "der Angaben des Standorts; liest keinen Datensatz",
    "none: exact training loss": "keiner: exakter Trainingsverlust",
    "Gaussian mechanism, once a run, charged to the ledger: on counts by class and score, where "
    "classes with too few records, by the noisy counts, are left out; or, in a run that trains "
    "nothing, on counts of records by split, class, size and grey value": "Gauß-Mechanismus, einmal "
    "je Lauf, dem Budgetbuch belastet: auf Zählungen nach Klasse und Punktwert, wobei Klassen "
    "entfallen, deren verrauschte Zählung zu klein ist; oder, in einem Lauf ohne Training, "
    "auf Zählungen der Datensätze nach Teilmenge, Klasse, Größe und Grauwert",
    "none: exact metrics": "keiner: exakte Kennzahlen",
    "function of request, configuration and ledger; no record": "Funktion von Anfrage, Konfiguration "
    "und Budgetbuch; kein Datensatz",
    "fixed text of code and configuration, or what a person here typed to refuse a run (site approve "
    "--no); no record": "fester Text aus Programmcode und Konfiguration, oder was eine Person vor Ort "
    "zur Ablehnung eines Laufs eingegeben hat (site approve --no); kein Datensatz",
    # What no guarantee covers.
    "timing and size of answers, and whether an answer comes at all": "Zeitpunkt und Größe der "
    "Antworten, und ob überhaupt eine Antwort kommt",
    "hyper-parameters that were chosen after looking at private data": "Einstellungen "
    "(Hyperparameter), die nach Einsicht in geschützte Daten gewählt wurden",
    "rollback of ledger, anchor and reports together by the site's own administrator": "gemeinsames "
    "Zurücksetzen von Budgetbuch, Anker und Berichten durch die eigene Administration des Standorts",
    "overlap between public pre-training data and private records": "Überschneidung öffentlicher "
    "Vortrainingsdaten mit geschützten Datensätzen",
    "a person with records at k sites: that person's epsilon is the sum over those sites; where "
    "sites share the noise, the records count in the rounds as if they were at one site, and delta "
    "grows faster, and what each site counts with noise of its own adds up": "Personen mit Daten an "
    "k Standorten: Ihr Epsilon ist die Summe über diese Standorte; wo sich Standorte das Rauschen "
    "teilen, zählen die Datensätze in den Runden wie an einem Standort, Delta wächst schneller, und "
    "was jeder Standort mit eigenem Rauschen zählt, addiert sich",
    "more colluding sites than a run says, where sites share the noise: then the larger epsilon of "
    "the receipt holds": "mehr zusammenwirkende Standorte, als ein Lauf angibt, wo sich Standorte das "
    "Rauschen teilen: Dann gilt das größere Epsilon der Quittung",
    "rounding of float32 gradients before the clipped sum: an allowance in the sensitivity covers "
    "it, which was measured on models as training makes them, is not proven, and does not hold for "
    "tensors that a server chooses to enlarge the rounding; sum, noise and release are exact": ""
    "Rundung von float32-Gradienten vor der begrenzten Summe: Ein Zuschlag zur Sensitivität deckt "
    "sie; er wurde an Modellen gemessen, wie das Training sie hervorbringt, ist nicht bewiesen und "
    "gilt nicht für Tensoren, die ein Server wählt, um die Rundung zu vergrößern; Summe, Rauschen und "
    "Freigabe sind exakt",
    "noise_source is seeded: anyone who has the seed can remove the noise": "Das Rauschen stammt aus "
    "einem Startwert: Wer ihn kennt, kann das Rauschen entfernen",
    "exact losses and metrics are computed on private splits and carry no noise": "Exakte Verluste "
    "und Kennzahlen werden auf geschützten Daten berechnet und tragen kein Rauschen",
    "non-private and local baselines are trained on the same records, outside the ledger": "Lokale "
    "Vergleichsmodelle und solche ohne Datenschutz werden auf denselben Datensätzen trainiert, "
    "außerhalb des Budgetbuchs",
    "an audit's membership attack compares losses on private splits, without noise": "Der "
    "Zugehörigkeitsangriff einer Prüfung vergleicht Verluste auf geschützten Daten, ohne Rauschen",
    # Events and pictures.
    "takes part from this round on": "nimmt ab dieser Runde teil",
    "Attention, {kind} phantoms": "Aufmerksamkeit, Phantome: {kind}",
    "Inpainting, {kind} phantoms": "Ergänzung verdeckter Teile, Phantome: {kind}",
    "Above: three {kind} images. Below: the parts of each image that contribute to the encoder's "
    "mean token, by attention rollout (Abnar and Zuidema 2020): yellow the most, black the least.": ""
    "Oben: drei Bilder ({kind}). Unten: die Teile jedes Bildes, die zum mittleren Token des Encoders "
    "beitragen, nach Attention Rollout (Abnar und Zuidema 2020): Gelb am meisten, Schwarz am "
    "wenigsten.",
    "Three {kind} images, one in each row. From left to right: the image; the input of the model, "
    "with {hidden} % hidden; the image as the model completes it.": "Drei Bilder ({kind}), eines je "
    "Zeile. Von links nach rechts: das Bild; die Eingabe des Modells, zu {hidden} % verdeckt; das "
    "Bild, wie das Modell es ergänzt.",
}
"""English sentence -> German; parts in braces are taken over."""
