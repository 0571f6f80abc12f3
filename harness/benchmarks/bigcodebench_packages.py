"""What the BigCodeBench tasks import, at the versions that their authors graded with.

The pins are those of upstream's `Requirements/requirements-eval.txt` (bigcodebench 0.2.5, Python
3.10), but for scikit-image 0.19.3 instead of 0.18.0, which has no wheel for Python 3.10; without
python-Levenshtein-wheels, whose module Levenshtein already gives. What upstream leaves open (the
packages that those need) is pinned to what an installation resolved to in November 2026, so that an
environment made later gives the same verdicts.
"""

EVALUATOR = "bigcodebench==0.2.5"  # the official checker; installed without what it asks for

# the packages that most tasks need, by the number of tasks that each one adds; the last few are
# asked for by pandas and beautifulsoup4 for some formats
_LIGHT = """
numpy pandas matplotlib scikit-learn scipy seaborn Faker requests nltk pytz beautifulsoup4
python-dateutil statsmodels pillow opencv-python-headless Django regex cryptography rsa lxml
openpyxl xlrd psutil xlwt
"""

# all others that upstream installs
_FULL = """
blake3 chardet DateTime dnspython docxtpl Flask-Login Flask-RESTful Flask-WTF Flask-Mail Flask
folium gensim geopandas geopy holidays keras Levenshtein librosa mechanize natsort networkx
numba prettytable pycryptodome pyfakefs pyquery pytesseract pytest python-http-client
python-docx PyYAML requests-mock scikit-image selenium sendgrid shapely soundfile sympy
tensorflow TextBlob texttable Werkzeug wikipedia wordcloud wordninja WTForms xmltodict
"""

SOURCE_ONLY = ("Flask-Mail", "wikipedia", "wordninja")  # pure Python, published without a wheel

# what a warm parent imports once: most used by the tasks for the time that importing takes
_PRELOAD = """
numpy pandas matplotlib.pyplot scipy.stats scipy.optimize scipy.signal sklearn.linear_model
sklearn.preprocessing sklearn.model_selection sklearn.cluster sklearn.decomposition
sklearn.metrics sklearn.ensemble sklearn.feature_extraction.text sklearn.datasets seaborn faker
requests nltk bs4 unittest.mock doctest sqlite3 xml.etree.ElementTree asyncio subprocess
tempfile shutil zipfile csv logging urllib.request http.client smtplib ftplib socket
"""

_LOCK_310 = """
absl-py==2.5.1 aniso8601==10.0.1 asgiref==3.12.1 astunparse==1.6.3 attrs==26.1.0
audioread==3.1.0 beautifulsoup4==4.8.2 blake3==0.4.1 blinker==1.9.0 branca==0.8.2
certifi==2026.10.18 cffi==2.1.1 chardet==5.2.0 charset-normalizer==3.5.2 click==8.5.1
click-plugins==1.1.1.2 cligj==0.7.2 cloudpickle==3.1.2 contourpy==1.2.1 cryptography==38.0.0
cssselect==1.5.0 cycler==0.12.1 DateTime==5.5 decorator==5.3.1 Django==4.2.7 dnspython==2.6.1
docxtpl==0.11.5 et_xmlfile==2.0.0 exceptiongroup==1.3.1 Faker==20.1.0 fiona==1.10.1 Flask==3.0.3
Flask-Login==0.6.3 Flask-Mail==0.9.1 Flask-RESTful==0.3.10 Flask-WTF==1.2.1
flatbuffers==25.12.19 folium==0.16.0 fonttools==4.65.0 gast==0.4.0 gensim==4.3.2
geographiclib==2.1 geopandas==0.13.2 geopy==2.4.1 google-auth==2.47.0
google-auth-oauthlib==0.4.6 google-pasta==0.2.0 grpcio==1.85.1 h11==0.16.0 h5py==3.16.0
holidays==0.29 html5lib==1.1 idna==3.20 ImageIO==2.38.0 iniconfig==2.3.1 itsdangerous==2.2.0
Jinja2==3.1.6 joblib==1.6.0 keras==2.11.0 kiwisolver==1.5.1 lazy-loader==0.6 Levenshtein==0.25.0
libclang==18.1.1 librosa==0.10.1 llvmlite==0.38.1 lxml==4.9.3 Markdown==3.10.3 MarkupSafe==3.0.4
matplotlib==3.7.0 mechanize==0.4.9 mpmath==1.4.1 msgpack==1.2.4 natsort==7.1.1 networkx==2.6.3
nltk==3.8 numba==0.55.0 numpy==1.21.2 oauthlib==4.0.1 opencv-python-headless==4.9.0.80
openpyxl==3.1.2 opt_einsum==3.4.0 outcome==1.3.0.post0 packaging==26.3 pandas==2.0.3
patsy==1.0.3 pillow==10.3.0 platformdirs==4.12.4 pluggy==1.7.0 pooch==1.9.0 prettytable==3.10.0
protobuf==3.19.6 psutil==5.9.5 pyasn1==0.6.5 pyasn1_modules==0.4.2 pycparser==3.11
pycryptodome==3.14.1 pyfakefs==5.4.1 pyparsing==3.3.3 pyproj==3.7.1 pyquery==1.4.3
PySocks==1.7.1 pytesseract==0.3.10 pytest==8.2.0 python-dateutil==2.9.0 python-docx==1.1.0
python-http-client==3.3.7 pytz==2023.3.post1 PyWavelets==1.4.1 PyYAML==6.0.1 RapidFuzz==3.14.5
regex==2026.9.29 requests==2.31.0 requests-mock==1.11.0 requests-oauthlib==2.0.0 rsa==4.9
scikit-image==0.19.3 scikit-learn==1.3.1 scipy==1.7.2 seaborn==0.13.2 selenium==4.15.0
sendgrid==6.11.0 shapely==2.0.4 six==1.17.0 smart_open==9.0.2 sniffio==1.3.1
sortedcontainers==2.4.0 soundfile==0.12.1 soupsieve==2.10 soxr==1.1.0 sqlparse==0.6.1
starkbank-ecdsa==2.3.1 statsmodels==0.14.0 sympy==1.12 tensorboard==2.11.2
tensorboard-data-server==0.6.1 tensorboard-plugin-wit==1.8.1 tensorflow==2.11.1
tensorflow-estimator==2.11.0 tensorflow-io-gcs-filesystem==0.37.1 termcolor==3.3.0
TextBlob==0.18.0 texttable==1.7.0 threadpoolctl==3.8.0 tifffile==2025.5.10 tomli==2.5.0
tqdm==4.70.1 trio==0.35.0 trio-websocket==0.12.2 typing_extensions==4.16.0 tzdata==2026.6
urllib3==2.8.0 wcwidth==0.9.4 webencodings==0.6.1 Werkzeug==3.0.1 wikipedia==1.4.0
wordcloud==1.9.3 wordninja==2.0.0 wrapt==2.5.2 wsproto==1.3.2 WTForms==3.1.2 xlrd==2.0.1
xlwt==1.3.0 xmltodict==0.13.0 xyzservices==2026.9.1 zope.interface==8.6
"""

# Python 3.11 has no wheels of numpy before 1.23.2: the nearest that work together
_LOCK_311 = """
absl-py==2.5.1 aniso8601==10.0.1 asgiref==3.13.0 astunparse==1.6.3 attrs==26.1.0
audioread==3.1.0 beautifulsoup4==4.8.2 blake3==0.4.1 blinker==1.9.0 branca==0.8.2
certifi==2026.10.18 cffi==2.1.1 chardet==5.2.0 charset-normalizer==3.5.2 click==8.5.1
click-plugins==1.1.1.2 cligj==0.7.2 cloudpickle==3.1.2 contourpy==1.3.2 cryptography==38.0.0
cssselect==1.6.0 cycler==0.12.1 DateTime==5.5 decorator==5.3.1 Django==4.2.7 dnspython==2.6.1
docxtpl==0.11.5 et_xmlfile==2.0.0 Faker==20.1.0 fiona==1.10.1 Flask==3.0.3 Flask-Login==0.6.3
Flask-Mail==0.9.1 Flask-RESTful==0.3.10 Flask-WTF==1.2.1 flatbuffers==25.12.19 folium==0.16.0
fonttools==4.68.0 gast==0.7.0 gensim==4.3.2 geographiclib==2.1 geopandas==0.13.2 geopy==2.4.1
google-auth==2.47.0 google-auth-oauthlib==1.0.0 google-pasta==0.2.0 grpcio==1.85.1 h11==0.16.0
h5py==3.16.0 holidays==0.29 html5lib==1.1 idna==3.20 ImageIO==2.38.1 iniconfig==2.3.1
itsdangerous==2.2.0 Jinja2==3.1.6 joblib==1.6.0 keras==2.14.0 kiwisolver==1.5.1 lazy-loader==0.6
Levenshtein==0.25.0 libclang==18.1.1 librosa==0.10.1 llvmlite==0.40.1 lxml==4.9.3
Markdown==3.11.3 MarkupSafe==3.0.4 matplotlib==3.7.5 mechanize==0.4.9 ml-dtypes==0.2.0
mpmath==1.4.1 msgpack==1.2.4 natsort==7.1.1 networkx==2.8.8 nltk==3.8.1 numba==0.57.1
numpy==1.24.4 oauthlib==4.0.1 opencv-python-headless==4.9.0.80 openpyxl==3.1.2 opt_einsum==3.4.0
outcome==1.3.0.post0 packaging==26.3 pandas==2.0.3 patsy==1.0.3 pillow==10.3.0
platformdirs==4.14.5 pluggy==1.7.0 pooch==1.9.0 prettytable==3.10.0 protobuf==4.25.9
psutil==5.9.5 pyasn1==0.6.5 pyasn1_modules==0.4.2 pycparser==3.12 pycryptodome==3.14.1
pyfakefs==5.4.1 pyparsing==3.3.3 pyproj==3.7.2 pyquery==1.4.3 PySocks==1.7.1 pytesseract==0.3.10
pytest==8.2.0 python-dateutil==2.9.0 python-docx==1.1.0 python-http-client==3.3.7
pytz==2023.3.post1 PyWavelets==1.8.0 PyYAML==6.0.1 RapidFuzz==3.14.6 regex==2026.11.15
requests==2.31.0 requests-mock==1.11.0 requests-oauthlib==2.0.0 rsa==4.9 scikit-image==0.20.0
scikit-learn==1.3.1 scipy==1.10.1 seaborn==0.13.2 selenium==4.15.0 sendgrid==6.11.0
shapely==2.0.4 six==1.17.0 smart_open==9.0.2 sniffio==1.3.1 sortedcontainers==2.4.0
soundfile==0.12.1 soupsieve==4.1.1 soxr==1.1.0 sqlparse==0.6.1 starkbank-ecdsa==2.3.1
statsmodels==0.14.0 sympy==1.12 tensorboard==2.14.1 tensorboard-data-server==0.7.2
tensorflow==2.14.1 tensorflow-estimator==2.14.0 tensorflow-io-gcs-filesystem==0.37.1
termcolor==3.3.0 TextBlob==0.18.0 texttable==1.7.0 threadpoolctl==3.8.0 tifffile==2026.3.3
tqdm==4.70.1 trio==0.35.0 trio-websocket==0.12.2 typing_extensions==4.16.0 tzdata==2026.6
urllib3==2.8.0 wcwidth==0.9.4 webencodings==0.6.1 Werkzeug==3.0.1 wikipedia==1.4.0
wordcloud==1.9.3 wordninja==2.0.0 wrapt==1.14.2 wsproto==1.3.2 WTForms==3.1.2 xlrd==2.0.1
xlwt==1.3.0 xmltodict==0.13.0 xyzservices==2026.9.1 zope.interface==8.7
"""

LIGHT, FULL, PRELOAD = _LIGHT.split(), _FULL.split(), _PRELOAD.split()
LOCKS = {"3.10": _LOCK_310.split(), "3.11": _LOCK_311.split()}  # by Python, best first
